"""What has no namespace: the keys of the session that the caller was in.

keyrings(7), session-keyring(7). A child inherits its parent's session keyring, and who *possesses* a keyring may read
what is in it, Kerberos tickets and passwords of disks, whatever its user id is by then.
"""

from __future__ import annotations

import errno

from minicontainer.linux import join_session_keyring


def leave_keys() -> None:
    """Give the calling process a session keyring of its own, empty.

    Raises OSError: EDQUOT (too many keys of this user, /proc/key-users). A kernel without keys (ENOSYS), or a filter
    that keeps us from them (EPERM), leaves nothing to hide.
    """
    try:
        join_session_keyring()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise
