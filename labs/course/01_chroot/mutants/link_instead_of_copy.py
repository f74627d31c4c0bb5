# mutant: links the program itself to the host's
# loses: test_shell_runs, test_applets, test_copy
# diagnosis: bin/busybox is a link to .*: that path lies outside|inside that leads to no file

# %%exercise chroot.build_root
def build_root(root, busybox):
    import subprocess
    from pathlib import Path

    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"):
        (top / directory).mkdir(parents=True, exist_ok=True)
    (top / "tmp").chmod(0o1777)
    (top / "bin/busybox").symlink_to(busybox)
    for applet in subprocess.run([busybox, "--list-full"], capture_output=True, text=True).stdout.split():
        if not (top / applet).is_symlink():
            (top / applet).symlink_to("/bin/busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
