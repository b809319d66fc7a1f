# Sourced by the recipes that are chains of commands: says what a step is for, shows its command, runs it.
# shellcheck shell=bash
step() { # TITLE, a bluelm command
    printf '\n\033[1m== %s\033[0m\n' "$1" >&2
    shift
    printf '$ bluelm %s\n' "$*" >&2
    bluelm "$@"
}
