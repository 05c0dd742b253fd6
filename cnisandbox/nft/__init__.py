"""Packet filtering and address translation, through libnftables' JSON interface.

Privilege: CAP_NET_ADMIN in the network namespace whose rules are changed; no file, no program, no other capability.

    connection   one transaction or one listing, in this process
    statements   the JSON of rules and verdicts
    masquerade   the rules of ipMasq
    shared       those of them that concern everybody, for whoever judges
    reference    what the reference plugins leave behind for ipMasq, to be removed on DEL
    spoofcheck   the rules of macspoofchk
"""
