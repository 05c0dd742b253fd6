int native_setns(int fd, int nstype);
int native_unshare(int flags);
int native_fs_magic(int fd, long *magic);
int native_ns_get_userns(int fd);
int native_ns_get_nstype(int fd);
int native_clear_ambient(void);
int native_set_securebits(unsigned long bits);
int native_close_range(unsigned int first, unsigned int last, unsigned int flags);
int native_pidfd_open(int pid);
int native_pidfd_send_signal(int pidfd, int signal_number);
int native_pivot_root(const char *new_root, const char *put_old);
int native_umount2(const char *target, int flags);
int native_open_tree(int dirfd, const char *path, unsigned int flags);
int native_move_mount(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path, unsigned int flags);
int native_fsopen(const char *fsname, unsigned int flags);
int native_fsconfig_string(int fd, const char *key, const char *value);
int native_fsconfig_create(int fd);
int native_fsmount(int fd, unsigned int flags, unsigned int attributes);
int native_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t attr_set, uint64_t attr_clr,
			 uint64_t propagation, uint64_t userns_fd);
int native_landlock_abi(void);
int native_landlock_create_ruleset(uint64_t fs, uint64_t net, uint64_t scoped, size_t size);
int native_landlock_allow_path(int ruleset_fd, uint64_t allowed, int parent_fd);
int native_landlock_restrict_self(int ruleset_fd);
int native_seccomp_load(const void *program, unsigned short instructions, unsigned int flags);
int native_seccomp_action_available(uint32_t action);
int native_userns_for_idmap(unsigned int inside_uid, unsigned int outside_uid, unsigned int inside_gid,
			    unsigned int outside_gid);
