#!/bin/sh
# `sluice` as the service runs it: by its account, in its folder, with its secrets. To be called by root, as /usr/local/bin/sluice: docs/operating.md, "Leave it running".
if [ "$(id -u)" -ne 0 ]; then
    echo "error: this is the command of the service, whose account and secrets only root may use. Call it by sudo." >&2
    exit 2
fi
secrets=/etc/sluice/secrets
if [ -e "$secrets" ]; then
    # what systemd reads too: a name and a value on each line. Nothing in it is carried out
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in [A-Z_]*=*) export "${line?}" ;; esac
    done < "$secrets"
fi
unset XDG_CACHE_HOME XDG_CONFIG_HOME HF_HOME # root's own
export HOME=/srv/sluice
cd "$HOME" && exec setpriv --reuid=sluice --regid=sluice --init-groups --no-new-privs program/.venv/bin/sluice "$@"
