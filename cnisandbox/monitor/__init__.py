"""The netlink reference monitor: processes that keep CAP_NET_ADMIN and act for one that has nothing."""
