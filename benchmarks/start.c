/*
 * The yardstick of the warm start: what a container costs when C makes the calls that our engine makes.
 *
 *     start ROOTFS WORK HARDENING [CALLS…]
 *
 * For every line that it reads it starts /bin/true in a new container, waits for its end, removes what belonged to it, and
 * prints how many milliseconds that took. ROOTFS is the read-only layer of the root file system, WORK a directory for the
 * rest, HARDENING a file that says what is taken from the container, as calls.py had it from the engine. An empty ROOTFS
 * leaves out everything that is not needed for seeing what a group costs: the container has a PID namespace and nothing
 * else. The line says which of the files CALLS has the calls on control groups that are to be made, as calls.py wrote
 * them down when the engine made them: 1 is the first, 0 is none of them, and the container has no group. Behind it the
 * line may name a bridge, 10.99.0.1/16, that the container is to be connected to.
 *
 * The other calls and their order are those of minicontainer/engine and minicontainer/runtime/birth.py, as `strace -f`
 * shows them; where the engine changes, this has to follow, or the comparison is none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* Numbers that an older C library may not know; they are the same on every architecture. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x10
#endif

/* Of the two headers that have mount(2) and the newer calls, a C library may allow only one at a time. */
#define MNT_DETACH 2
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);

static const char *rootfs, *work;

static int must(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "start: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
	return (int)result;
}

/* What is done for a control group: calls.py. */
struct call {
	char when, *what, *path, *value;
};

static struct call *read_calls(const char *file)
{
	struct call *calls = NULL;
	size_t number = 0, size = 0;
	FILE *from = fopen(file, "r");
	char *line = NULL;

	must(from ? 0 : -1, file);
	for (;; number++) {
		calls = realloc(calls, (number + 1) * sizeof *calls);
		must(calls ? 0 : -1, "realloc");
		line = NULL; /* a line of its own for each call, which points into it */
		if (getline(&line, &size, from) < 0)
			break;
		line[strcspn(line, "\n")] = '\0';
		calls[number].when = *strsep(&line, "\t");
		calls[number].what = strsep(&line, "\t");
		calls[number].path = strsep(&line, "\t");
		calls[number].value = line;
		size = 0;
	}
	calls[number].when = '\0';
	fclose(from);
	return calls;
}

static void read_all(const char *path)
{
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	static char text[1 << 16];

	while (must(read(fd, text, sizeof text), path) > 0)
		;
	close(fd);
}

/* steps/group.py: _remove. A process leaves its group some moments after its death was seen. */
static void remove_group(const char *path, int own)
{
	char processes[4096 + 16];

	snprintf(processes, sizeof processes, "%s/cgroup.procs", path);
	while (rmdir(path) != 0 && errno != ENOENT) {
		if (!own)
			return; /* it holds others */
		if (errno != EBUSY)
			must(-1, path);
		read_all(processes);
	}
}

/* Who starts containers: groups are named after it, also by init, whose own pid is another in there. */
static pid_t starter;

/* Make the calls that belong to one moment (by its first letter): before, clone, join, after. Returns what clone opens. */
static int make_calls(const struct call *call, char when, unsigned number)
{
	char path[4096];
	int fd, opened = -1;
	struct stat there;

	for (; call && call->when; call++) {
		const char *name = strchr(call->path, '%');

		if (call->when != when)
			continue;
		if (name)
			snprintf(path, sizeof path, "%.*sbenchmark-%d-%u%s", (int)(name - call->path), call->path, starter,
				 number, name + 1);
		else
			snprintf(path, sizeof path, "%s", call->path);
		if (!strcmp(call->what, "mkdir")) {
			if (mkdir(path, 0777) != 0 && errno != EEXIST)
				must(-1, path);
		} else if (!strcmp(call->what, "rmdir")) {
			remove_group(path, name != NULL);
		} else if (!strcmp(call->what, "write")) {
			fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
			must(write(fd, call->value, strlen(call->value)), path);
			close(fd);
		} else if (!strcmp(call->what, "read")) {
			read_all(path);
		} else if (!strcmp(call->what, "open")) {
			opened = must(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), path);
		} else if (!strcmp(call->what, "access")) {
			(void)!access(path, W_OK);
		} else if (!strcmp(call->what, "stat")) {
			(void)!stat(path, &there);
		} else {
			errno = EINVAL;
			must(-1, call->what);
		}
	}
	return opened;
}

static int openat_resolving(int root, const char *path, uint64_t resolve)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int in_root(int root, const char *path)
{
	return openat_resolving(root, path, RESOLVE_IN_ROOT);
}

/* linux/mount.py: target_in. A place below the root, opened without leaving it, and made when it is missing. */
static int reach(int root, const char *path, int directory)
{
	const char *slash, *name = path;
	char above[64] = "";
	int parent, there;

	if (!*path)
		return must(dup(root), "dup");
	there = in_root(root, path);
	if (there >= 0)
		return there;
	if (errno != ENOENT)
		must(-1, path);
	slash = strrchr(path, '/');
	if (slash) {
		snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
		name = slash + 1;
	}
	parent = reach(root, above, 1);
	if (directory) {
		must(mkdirat(parent, name, 0755), path);
		there = must(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), path);
	} else {
		there = must(openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644), path);
	}
	close(parent);
	return there;
}

static int target_in(const char *tree, const char *path, int directory)
{
	int root = must(open(tree, O_PATH | O_DIRECTORY | O_CLOEXEC), tree), there = reach(root, path, directory);

	close(root);
	return there;
}

static void attach(const char *tree, const char *path, const char *source, const char *type, unsigned long flags,
		   const char *data)
{
	int there = target_in(tree, path, 1);
	char target[32];

	snprintf(target, sizeof target, "/proc/self/fd/%d", there);
	must(mount(source, target, type, flags, data), path);
	close(there);
}

/* steps/mount.py: mount_proc_and_dev. */
static void mount_proc_and_dev(const char *root)
{
	static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
	static const struct {
		const char *name, *type;
		unsigned long flags;
		const char *data;
	} systems[] = {
		{"pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"},
		{"shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m"},
		{"mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	};
	static const char *const links[][2] = {
		{"pts/ptmx", "ptmx"},
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
	};
	char source[32], path[48];
	size_t i;
	int dev, place;

	attach(root, "proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	attach(root, "dev", "tmpfs", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=64k");
	dev = target_in(root, "dev", 1);
	for (i = 0; i < sizeof systems / sizeof *systems; i++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dev, systems[i].name);
		must(mkdir(path, 0777), path);
		must(mount(systems[i].type, path, systems[i].type, systems[i].flags, systems[i].data), path);
	}
	close(dev);
	dev = target_in(root, "dev", 1);
	for (i = 0; i < sizeof devices / sizeof *devices; i++) {
		snprintf(source, sizeof source, "/dev/%s", devices[i]);
		snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dev, devices[i]);
		place = must(open(path, O_CREAT | O_EXCL | O_CLOEXEC, 0777), path);
		snprintf(path, sizeof path, "/proc/self/fd/%d", place);
		must(mount(source, path, NULL, MS_BIND, NULL), path);
		close(place);
	}
	for (i = 0; i < sizeof links / sizeof *links; i++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dev, links[i][1]);
		must(symlink(links[i][0], path), path);
	}
	close(dev);
}

/* linux/namespaces.py: in_user_namespace. */
static int in_user_namespace(void)
{
	static const char first[] = "user:[4026531837]";
	char link[64];
	ssize_t length = readlink("/proc/self/ns/user", link, sizeof link);

	must(length, "/proc/self/ns/user");
	return (size_t)length != sizeof first - 1 || memcmp(link, first, (size_t)length) != 0;
}

/* steps/network.py: bring_up_loopback. */
static void loopback(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd;

	must(unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)");
	fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(fd, SIOCGIFFLAGS, &request), "SIOCGIFFLAGS");
	close(fd);
	request.ifr_flags |= IFF_UP;
	fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(fd, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
	close(fd);
}

/* linux/netlink.py: a message is built here, and sent with every other one of its batch. */
static char batch[4096];
static size_t length;

static void *put(const void *data, size_t size)
{
	char *place = batch + length;

	if (data)
		memcpy(place, data, size);
	else
		memset(place, 0, size);
	length += NLMSG_ALIGN(size);
	return place;
}

static struct nlmsghdr *message(unsigned short type, unsigned short flags, const void *body, size_t size)
{
	struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags}, *place;

	place = put(&header, sizeof header);
	put(body, size);
	return place;
}

static struct rtattr *attribute(unsigned short type, const void *value, size_t size)
{
	struct rtattr head = {.rta_type = type, .rta_len = (unsigned short)RTA_LENGTH(size)}, *place = put(&head, sizeof head);

	if (size)
		put(value, size);
	return place;
}

static void closed(struct rtattr *outer)
{
	outer->rta_len = (unsigned short)(batch + length - (char *)outer);
}

static void ended(struct nlmsghdr *header)
{
	header->nlmsg_len = (unsigned)(batch + length - (char *)header);
}

/* Send what was built, and see that the kernel has done all of it. */
static void ask(int fd, int messages)
{
	static char answer[1 << 15];
	ssize_t size;

	must(send(fd, batch, length, 0), "send(netlink)");
	length = 0;
	while (messages > 0) {
		size = must(recv(fd, answer, sizeof answer, 0), "recv(netlink)");
		for (struct nlmsghdr *one = (void *)answer; NLMSG_OK(one, size); one = NLMSG_NEXT(one, size)) {
			if (one->nlmsg_type != NLMSG_ERROR)
				continue;
			errno = -((struct nlmsgerr *)NLMSG_DATA(one))->error;
			must(errno ? -1 : 0, "netlink");
			messages--;
		}
	}
}

static int netlink_socket(void)
{
	return must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), "socket(netlink)");
}

static void set_file(const char *path, const char *value)
{
	int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);

	must(write(fd, value, strlen(value)), path);
	close(fd);
}

static void look_for(const char *name)
{
	struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
	struct nlmsghdr *header = message(RTM_GETLINK, 0, &link, sizeof link);

	attribute(IFLA_IFNAME, name, strlen(name) + 1);
	ended(header);
}

static void up(const char *name)
{
	struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	struct nlmsghdr *header = message(RTM_NEWLINK, 0, &link, sizeof link);

	attribute(IFLA_IFNAME, name, strlen(name) + 1);
	ended(header);
}

/* steps/bridge.py: connect. */
static void cable(pid_t pid, const char *bridge, unsigned number)
{
	struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
	char name[IFNAMSIZ], path[128];
	unsigned host = 2 + number % 60000, address = htonl(0x0a630000u | host), gateway = htonl(0x0a630001u);
	unsigned every = htonl(0x0a63ffffu);
	int back = must(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), "ns/net"), space, here, there, index;
	unsigned master = (unsigned)must((long)if_nametoindex(bridge) - 1, bridge) + 1;
	struct rtattr *info, *data, *peer;
	struct nlmsghdr *header;

	snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
	space = must(open(path, O_RDONLY | O_CLOEXEC), path);
	here = netlink_socket();
	must(setns(space, CLONE_NEWNET), "setns");
	there = netlink_socket();
	must(setns(back, CLONE_NEWNET), "setns");

	snprintf(name, sizeof name, "bench%u", number);
	header = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
	attribute(IFLA_IFNAME, name, strlen(name) + 1);
	attribute(IFLA_MASTER, &master, 4);
	info = attribute(IFLA_LINKINFO, NULL, 0);
	attribute(IFLA_INFO_KIND, "veth", 4);
	data = attribute(IFLA_INFO_DATA, NULL, 0);
	peer = attribute(VETH_INFO_PEER, NULL, 0);
	put(&link, sizeof link);
	attribute(IFLA_IFNAME, "eth0", 5);
	attribute(IFLA_NET_NS_FD, &space, 4);
	closed(peer);
	closed(data);
	closed(info);
	ended(header);
	ask(here, 1);
	snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	set_file(path, "1");

	must(setns(space, CLONE_NEWNET), "setns");
	index = (int)if_nametoindex("eth0");
	set_file("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
	must(setns(back, CLONE_NEWNET), "setns");
	header = message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
			 &(struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = (unsigned)index},
			 sizeof(struct ifaddrmsg));
	attribute(IFA_LOCAL, &address, 4);
	attribute(IFA_ADDRESS, &address, 4);
	attribute(IFA_BROADCAST, &every, 4);
	ended(header);
	up("eth0");
	ask(there, 2);
	up(name);
	look_for(name);
	ask(here, 2);
	look_for("eth0");
	header = message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
			 &(struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
					 .rtm_type = RTN_UNICAST},
			 sizeof(struct rtmsg));
	attribute(RTA_GATEWAY, &gateway, 4);
	attribute(RTA_OIF, &index, 4);
	ended(header);
	ask(there, 2);
	close(here);
	close(there);
	close(space);
	close(back);
}

/* steps/time.py: offset_clocks. */
static void own_clocks(void)
{
	int fd;

	must(unshare(CLONE_NEWTIME), "unshare(CLONE_NEWTIME)");
	fd = must(open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC), "time_for_children");
	must(setns(fd, CLONE_NEWTIME), "setns");
	close(fd);
}

/* steps/volume.py: make. A file system that is in no place yet. */
static int made(const char *type, const char *const options[][2], unsigned attributes)
{
	int context = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type), tree;

	must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", type, 0), type);
	must(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "ro", NULL, 0), type);
	for (; (*options)[0]; options++)
		must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, (*options)[0], (*options)[1], 0), type);
	must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	tree = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes), type);
	close(context);
	return tree;
}

static void move_to(int tree, int place)
{
	must(syscall(SYS_move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), "move_mount");
}

/* steps/volume.py: attach, place. */
static void attach_sysfs(const char *merged)
{
	static const char *const none[][2] = {{NULL, NULL}};
	int tree = made("sysfs", none, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	char proc[4096 + 8];
	struct statfs system;
	struct stat there;
	int top, place;

	must(fstat(tree, &there), "fstat");
	must(fstatfs(tree, &system), "fstatfs");
	top = must(open(merged, O_PATH | O_DIRECTORY | O_CLOEXEC), merged);
	place = must(openat_resolving(top, "sys", RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT), "sys");
	close(top);
	must(fstat(place, &there), "fstat");
	must(fstatfs(place, &system), "fstatfs");
	snprintf(proc, sizeof proc, "%s/proc", merged);
	must(lstat(proc, &there), proc);
	move_to(tree, place);
	close(place);
	close(tree);
}

/* What is taken from a container: calls.py, of_hardening. */
static struct call *hardening;
static struct sock_fprog filter;
static unsigned filter_flags;
static char *stub;
static size_t stub_size;

static char *content(const char *path, size_t *size)
{
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	struct stat about;
	char *text;

	must(fstat(fd, &about), path);
	*size = (size_t)about.st_size;
	text = malloc(*size);
	must(text && read(fd, text, *size) == about.st_size ? 0 : -1, path);
	close(fd);
	return text;
}

static void read_hardening(const char *file)
{
	struct call *call;
	size_t size;

	hardening = read_calls(file);
	for (call = hardening; call->when; call++)
		if (!strcmp(call->what, "filter")) {
			filter.filter = (struct sock_filter *)content(call->path, &size);
			filter.len = (unsigned short)(size / sizeof *filter.filter);
			filter_flags = (unsigned)strtoul(call->value, NULL, 10);
		} else if (!strcmp(call->what, "stub")) {
			stub = content(call->path, &stub_size);
		}
}

/* steps/masks.py: _found. What is there, held open; -1 where there is nothing. */
static int found(int proc, const char *path)
{
	struct statfs system;
	int place;

	if (strncmp(path, "/proc/", 6))
		return openat_resolving(AT_FDCWD, path, RESOLVE_NO_MAGICLINKS);
	place = openat_resolving(proc, path + 6, RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH);
	if (place >= 0)
		must(fstatfs(place, &system), path);
	return place;
}

/* runtime/rootfs.py: cover; steps/masks.py. */
static void cover(void)
{
	static const char *const options[][2] = {{"nr_blocks", "1"}, {"nr_inodes", "1"}, {"mode", "555"}, {NULL, NULL}};
	struct mount_attr readonly = {.attr_set = MOUNT_ATTR_RDONLY};
	const struct call *call;
	int proc, place, again, null, empty;
	struct stat there;

	proc = must(openat_resolving(AT_FDCWD, "/proc", RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS), "/proc");
	for (call = hardening; call->when; call++) {
		if (strcmp(call->what, "readonly") || (place = found(proc, call->path)) < 0)
			continue;
		again = must(syscall(SYS_open_tree, place, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE),
			     "open_tree");
		must(syscall(SYS_mount_setattr, again, "", AT_EMPTY_PATH | AT_RECURSIVE, &readonly, sizeof readonly),
		     "mount_setattr");
		move_to(again, place);
		close(again);
		close(place);
	}
	close(proc);
	null = must(open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC), "/dev/null");
	must(fstat(null, &there), "/dev/null");
	empty = made("tmpfs", options, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	proc = must(openat_resolving(AT_FDCWD, "/proc", RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS), "/proc");
	for (call = hardening; call->when; call++) {
		if (strcmp(call->what, "mask") || (place = found(proc, call->path)) < 0)
			continue;
		must(fstat(place, &there), call->path);
		again = must(syscall(SYS_open_tree, S_ISDIR(there.st_mode) ? empty : null, "",
				     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH),
			     "open_tree");
		move_to(again, place);
		close(again);
		close(place);
	}
	close(proc);
	close(empty);
	close(null);
}

/* linux/stub.py: sealed. */
static int sealed(void)
{
	struct utsname machine;
	int file;

	must(uname(&machine), "uname");
	file = must(memfd_create("start", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC), "memfd_create");
	must(write(file, stub, stub_size), "stub");
	must(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), "F_ADD_SEALS");
	return file;
}

/* runtime/confinement.py: confine; steps/capabilities.py, steps/identity.py. */
static void confine(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	unsigned long long bounding = 0, effective = 0, permitted = 0, inheritable = 0;
	const struct call *call;
	char here[1024];
	int number;

	for (call = hardening; call->when; call++)
		if (!strcmp(call->what, "capabilities"))
			sscanf(call->value, "%llu %llu %llu %llu", &bounding, &effective, &permitted, &inheritable);
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(chdir("/"), "chdir");
	for (number = 0; number < 64; number++)
		if (!(bounding >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) {
			(void)!prctl(PR_CAPBSET_READ, number, 0, 0, 0);
			break; /* this kernel has no more */
		}
	must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keepcaps");
	must(syscall(SYS_setgroups, 0, NULL), "setgroups");
	must(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
	must(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	must(getcwd(here, sizeof here) ? 0 : -1, "getcwd");
	must(syscall(SYS_capget, &header, data), "capget");
	for (number = 0; number < 2; number++)
		data[number] = (struct __user_cap_data_struct){
			.effective = (uint32_t)(effective >> 32 * number),
			.permitted = (uint32_t)(permitted >> 32 * number),
			.inheritable = (uint32_t)(inheritable >> 32 * number),
		};
	must(syscall(SYS_capset, &header, data), "capset");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient");
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter_flags, &filter), "seccomp");
}

/* runtime/birth.py: _begin; runtime/program.py: arrange, spawn. */
static pid_t spawn(int *channel)
{
	static char *const program[] = {"/bin/true", NULL};
	static char *const environment[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL};
	char *by_stub[5], place[32], line[16], message[] = "error {\"errno\": \"0000\", \"program\": \"/bin/true\"}";
	char *const *args = program;
	posix_spawnattr_t attributes;
	sigset_t none, resettable;
	int i, stdio[3], stand_in = -1;
	struct stat there;
	pid_t pid;

	for (i = 0; i < 3; i++)
		stdio[i] = must(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
	*channel = must(fcntl(*channel, F_DUPFD_CLOEXEC, stdio[2] + 1), "fcntl");
	for (i = 0; i < 3; i++)
		stdio[i] = must(fcntl(stdio[i], F_DUPFD, *channel), "fcntl");
	for (i = 0; i < 3; i++)
		must(dup2(stdio[i], i), "dup2");
	must(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
	for (i = 0; i < 3; i++)
		must(fstat(i, &there), "fstat");
	if (!in_user_namespace())
		must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");
	if (hardening) {
		stand_in = sealed();
		must(write(*channel, "starting", 8), "starting");
		confine();
		getpid();
	} else {
		must(chdir("/"), "chdir");
	}
	must(lstat(*program, &there), *program);
	must(access(*program, X_OK), *program);
	must(stat(*program, &there), *program);
	if (hardening) {
		snprintf(place, sizeof place, "/proc/self/fd/%d", stand_in);
		snprintf(line, sizeof line, "%o", *channel);
		must(stat(place, &there), place);
		must(fstat(stand_in, &there), place);
		must(fcntl(*channel, F_SETFD, 0), "fcntl");
		by_stub[0] = line;
		by_stub[1] = message;
		by_stub[2] = by_stub[3] = *program;
		by_stub[4] = NULL;
		args = by_stub;
	}

	sigemptyset(&none);
	sigfillset(&resettable);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &resettable);
	errno = posix_spawn(&pid, hardening ? place : *program, NULL, &attributes, args, environment);
	must(errno ? -1 : 0, "posix_spawn(/bin/true)");
	posix_spawnattr_destroy(&attributes);
	return pid;
}

/* steps/pid.py: reap. */
static int reap(pid_t child)
{
	int status, signal;
	sigset_t expected;
	pid_t pid;

	sigfillset(&expected);
	sigprocmask(SIG_BLOCK, &expected, NULL);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		sigwait(&expected, &signal);
		if (signal != SIGCHLD)
			kill(child, signal);
	}
}

/* runtime/birth.py: _init, the namespaces that one is not born into, and the root. */
static void isolate(const char *container)
{
	char merged[4096], options[3 * 4096];

	must(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL), "keyctl");

	must(unshare(CLONE_NEWCGROUP), "unshare(CLONE_NEWCGROUP)");
	must(unshare(CLONE_NEWIPC), "unshare(CLONE_NEWIPC)");
	must(unshare(CLONE_NEWUTS), "unshare(CLONE_NEWUTS)");
	must(sethostname("alpha", 5), "sethostname");
	own_clocks();

	must(unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)");
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount(private)");
	snprintf(merged, sizeof merged, "%s/merged", container);
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work%s", rootfs, container, container,
		 in_user_namespace() ? ",userxattr" : "");
	must(mount("overlay", merged, "overlay", 0, options), "mount(overlay)");
	mount_proc_and_dev(merged);
	attach_sysfs(merged);

	must(mount(merged, merged, NULL, MS_BIND | MS_REC, NULL), "mount(bind)");
	must(chdir(merged), "chdir");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount2");
	must(chdir("/"), "chdir");
	cover();
}

/* runtime/birth.py: _init. */
static int init(const char *container, const struct call *calls, unsigned number, int channel, int callers,
		const char *bridge)
{
	char word[16];
	pid_t child;
	int null, i;

	close(callers);
	must(setsid(), "setsid");
	if (read(channel, word, sizeof word) <= 0)
		return 125;
	must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl");
	if (*rootfs)
		loopback();
	if (bridge)
		must(write(channel, "networked", 9), "networked");
	make_calls(calls, 'j', number);
	if (*rootfs)
		isolate(container);
	if (bridge && read(channel, word, sizeof word) <= 0)
		return 125;
	child = spawn(&channel);
	must(write(channel, "ready", 5), "ready");
	null = must(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
	for (i = 0; i < 3; i++)
		must(dup2(null, i), "dup2");
	must(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
	return reap(child);
}

/* engine/store.py: a state is written whole or not at all. */
static void record(const char *container, const char *name, const char *text, int whole)
{
	char path[4096], unfinished[4096 + 8];
	int fd;

	snprintf(path, sizeof path, "%s/%s", container, name);
	snprintf(unfinished, sizeof unfinished, whole ? "%s.new" : "%s", path);
	fd = must(open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), unfinished);
	must(write(fd, text, strlen(text)), unfinished);
	close(fd);
	if (!whole)
		return;
	if (syscall(SYS_renameat2, AT_FDCWD, unfinished, AT_FDCWD, path, 2 /* RENAME_EXCHANGE */) == 0)
		must(unlink(unfinished), unfinished);
	else
		must(rename(unfinished, path), path);
}

/* engine/engine.py: birth_of, field 22 of /proc/PID/stat. */
static unsigned long birth_of(pid_t pid)
{
	char path[32], text[512], *field;
	ssize_t length;
	int fd, i;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	length = must(read(fd, text, sizeof text - 1), path);
	close(fd);
	text[length] = '\0';
	field = strrchr(text, ')');
	for (i = 2; field && i < 22; i++)
		field = strchr(field + 1, ' ');
	return field ? strtoul(field, NULL, 10) : 0;
}

/* runtime/birth.py: start; engine/engine.py: start, attend. */
static void start(const char *container, const struct call *calls, unsigned number, const char *bridge)
{
	struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
	int channel[2], pidfd, status, group;
	struct pollfd poller;
	sigset_t all, before;
	char word[16], text[128];
	pid_t pid;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), "socketpair");
	starter = getpid();
	make_calls(calls, 'b', number);
	group = make_calls(calls, 'c', number);
	if (group >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)group;
	}
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	pid = must(syscall(SYS_clone3, &args, sizeof args), "clone3");
	if (pid == 0)
		_exit(init(container, calls, number, channel[1], channel[0], bridge));
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (group >= 0)
		close(group);
	pidfd = must(syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
	close(channel[1]);
	must(write(channel[0], "go", 2), "go");
	poller = (struct pollfd){.fd = channel[0], .events = POLLIN};
	for (;;) {
		must(poll(&poller, 1, -1), "poll");
		if (read(channel[0], word, sizeof word) <= 0)
			break;
		if (!strncmp(word, "networked", 9)) {
			cable(pid, bridge, number);
			must(write(channel[0], "connected", 9), "connected");
		}
	}
	close(channel[0]);
	if (container) {
		snprintf(text, sizeof text, "{\"status\": \"running\", \"pid\": %d, \"started\": %lu}", pid, birth_of(pid));
		record(container, "state.json", text, 1);
	}
	poller = (struct pollfd){.fd = pidfd, .events = POLLIN};
	must(poll(&poller, 1, -1), "poll");
	must(waitpid(pid, &status, 0), "waitpid");
	close(pidfd);
	make_calls(calls, 'a', number);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "start: the container ended with status %#x\n", status);
		exit(1);
	}
}

static int locked(const char *directory, const char *name)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	fd = must(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600), path);
	must(flock(fd, LOCK_EX), "flock");
	return fd;
}

/* "make" and "remove" of a file or directory of the container's. */
static void in_container(const char *container, const char *name, int (*act)(const char *))
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", container, name);
	must(act(path), path);
}

static int make(const char *path)
{
	return mkdir(path, 0777);
}

/* network/networks.py: join, leave. Who has which address is read, written whole, and locked meanwhile. */
static void endpoint(const char *container, unsigned number)
{
	char text[256], path[4096];
	int lock = locked(work, "network-lock"), spaces = must(open("/proc/sys/net/ipv4/route/flush", O_WRONLY | O_CLOEXEC), "flush");

	must(flock(spaces, LOCK_EX), "flock");
	snprintf(path, sizeof path, "%s/endpoints.json", work);
	if (access(path, R_OK) == 0)
		read_all(path);
	snprintf(text, sizeof text, "{\"endpoints\": [{\"container\": \"%u\", \"addresses\": [\"10.99.0.2/16\"]}]}", number);
	record(work, "endpoints.json", container ? text : "{\"endpoints\": []}", 1);
	record(work, "network-names", container ? "{\"c\": [\"10.99.0.2\"]}" : "{}", 1);
	close(spaces);
	close(lock);
}

/* engine/: the container's directory, its records, its life, its end. */
static void run(unsigned number, const struct call *calls, const char *bridge)
{
	static const char config[] =
		"{\"id\": \"0123456789ab\", \"name\": \"c-012345\", \"image\": \"busybox\", \"args\": [\"/bin/true\"], "
		"\"rootfs\": false, \"hostname\": \"0123456789ab\", \"domainname\": null, \"cwd\": \"/\", "
		"\"env\": [\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\", \"HOME=/root\"]}";
	static const char *const top[] = {"containers", "names", "images"};
	static const char *const tree[] = {"upper", "merged", "work/work", "work"}; /* work/work is the kernel's */
	char container[4000], name[4000], text[128];
	struct stat there;
	int lock, attended;
	size_t i;

	for (i = 0; i < sizeof top / sizeof *top; i++) {
		snprintf(name, sizeof name, "%s/%s", work, top[i]);
		if (mkdir(name, 0777) != 0 && errno != EEXIST)
			must(-1, name);
	}
	must(stat(rootfs, &there), rootfs);
	lock = locked(work, "lock");
	snprintf(container, sizeof container, "%s/containers/%u", work, number);
	snprintf(name, sizeof name, "%s/names/%u", work, number);
	snprintf(text, sizeof text, "../containers/%u", number);
	must(mkdir(container, 0711), container);
	must(symlink(text, name), name);
	in_container(container, "upper", make);
	in_container(container, "work", make);
	in_container(container, "merged", make);
	record(container, "config.json", config, 0);
	close(lock);

	attended = locked(container, "attended");
	record(container, "state.json", "{\"status\": \"starting\"}", 1);
	if (bridge)
		endpoint(container, number);
	start(container, calls, number, bridge);
	if (bridge)
		endpoint(NULL, number);
	record(container, "state.json", "{\"status\": \"exited\", \"exit_code\": 0}", 1);
	close(attended);

	in_container(container, "config.json", unlink);
	in_container(container, "attended", unlink);
	in_container(container, "state.json", unlink);
	for (i = 0; i < sizeof tree / sizeof *tree; i++)
		in_container(container, tree[i], rmdir);
	must(rmdir(container), container);
	must(unlink(name), name);
}

int main(int argc, char **argv)
{
	struct timespec before, after;
	struct call *calls[16] = {NULL};
	char line[64], *bridge;
	unsigned number = 0, which;
	int i;

	if (argc < 4 || argc > 4 + 15) {
		fprintf(stderr, "usage: start ROOTFS WORK HARDENING [CALLS...]\n");
		return 2;
	}
	rootfs = argv[1];
	work = argv[2];
	if (*rootfs)
		read_hardening(argv[3]);
	for (i = 4; i < argc; i++)
		calls[i - 3] = read_calls(argv[i]);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		bridge = strchr(line, ' ');
		if (bridge)
			bridge++;
		which = (unsigned)atoi(line) % 16;
		clock_gettime(CLOCK_MONOTONIC, &before);
		if (*rootfs)
			run(number++, calls[which], bridge);
		else
			start(NULL, calls[which], number++, NULL);
		clock_gettime(CLOCK_MONOTONIC, &after);
		printf("%.4f\n", (double)(after.tv_sec - before.tv_sec) * 1e3 + (double)(after.tv_nsec - before.tv_nsec) / 1e6);
		fflush(stdout);
	}
	return 0;
}
