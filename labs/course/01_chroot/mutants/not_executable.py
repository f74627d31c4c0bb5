# mutant: copies the bytes of the program and not its permissions
# loses: test_shell_runs
# diagnosis: has mode 0644: execve\(2\) refuses

# %%exercise chroot.build_root
def build_root(root, busybox):
    import shutil
    import subprocess
    from pathlib import Path

    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"):
        (top / directory).mkdir(parents=True, exist_ok=True)
    (top / "tmp").chmod(0o1777)
    shutil.copyfile(busybox, top / "bin/busybox")
    for applet in subprocess.run([busybox, "--list-full"], capture_output=True, text=True).stdout.split():
        if not (top / applet).exists():
            (top / applet).symlink_to("/bin/busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
