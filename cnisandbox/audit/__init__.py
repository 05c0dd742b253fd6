"""The audit log: one line for each message that a monitor judged, permitted or refused. It is off by default.

    {"time":"2026-01-31T12:00:00.123456Z","plugin":"bridge","container":"c1","ifname":"eth0","netns":"host",
     "message":{"type":"RTM_NEWLINK","ifname":"cni0",...},"permit":"bridge:1"}

A refused message has "refused", with the reason, in place of "permit". A session's last line has "dropped" and "reason"
in place of the rest if messages of it are missing.

The entry, which is root, opens the log (`log.open_log`); the monitor writes to it (`log.AuditLog`); a person reads it
(`cnisandbox log`, by `read`).
"""

from cnisandbox.audit.log import AuditLog, LogTarget, open_log

__all__ = ["AuditLog", "LogTarget", "open_log"]
