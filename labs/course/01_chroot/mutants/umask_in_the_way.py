# mutant: gives /tmp its mode to mkdir, where the umask takes away from it
# loses: test_directories
# diagnosis: /tmp has mode 1755 and should have 1777

# %%exercise chroot.build_root
def build_root(root, busybox):
    import shutil
    import subprocess
    from pathlib import Path

    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "usr/bin", "usr/sbin"):
        (top / directory).mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    (top / "tmp").mkdir(0o1777)
    shutil.copy(busybox, top / "bin/busybox")
    for applet in subprocess.run([busybox, "--list-full"], capture_output=True, text=True).stdout.split():
        if not (top / applet).exists():
            (top / applet).symlink_to("/bin/busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
