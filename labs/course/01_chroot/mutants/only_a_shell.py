# mutant: makes a link for the shell alone
# loses: test_applets
# diagnosis: there is no ls in bin, sbin, usr/bin or usr/sbin

# %%exercise chroot.build_root
def build_root(root, busybox):
    import shutil
    from pathlib import Path

    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp"):
        (top / directory).mkdir()
    (top / "tmp").chmod(0o1777)
    shutil.copy(busybox, top / "bin/busybox")
    (top / "bin/sh").symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
