"""What somebody may do to what is ours in iptables: the tool's words, `{...}` filled in.
"""

EDITS: dict[str, list[list[str]]] = {
    "flush our chain": [["-F", "ENVELOPE"]],
    "flush the grants": [["-F", "ENVELOPE-GRANTS"]],
    "delete the jump": [["-D", "INPUT", "-j", "{entry}"]],
    "flush INPUT": [["-F", "INPUT"]],
    "double the jump": [["-A", "INPUT", "-j", "{entry}"]],
    "delete our third rule": [
        ["-D", "ENVELOPE", "-p", "tcp", "-m", "tcp", "--dport", "8880", "-j", "ACCEPT"]],
    "delete our last rule": [["-D", "ENVELOPE", "-j", "REJECT", "--reject-with", "{reject}"]],
    "a stray grant": [["-A", "ENVELOPE-GRANTS", "-s", "{stray}", "-m", "time", "--datestop",
                       "2030-01-01T00:00:00", "-j", "ACCEPT"]],
    "remove the marker": [["-F", "{marker}"], ["-X", "{marker}"]],
    "reset the policy": [["-P", "INPUT", "ACCEPT"]],
    "flush everything": [["-F"], ["-X"], ["-P", "INPUT", "ACCEPT"]],
    "delete the table": [],
}
# The chains that are emptied, others' rules included.
FLUSHED = {
    "flush our chain": "ENVELOPE", "flush the grants": "ENVELOPE-GRANTS", "flush INPUT": "INPUT",
}
