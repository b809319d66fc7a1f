# Completion of bluelm's commands, flags and choices for bash: bluelm itself is asked.
_bluelm() {
    local IFS=$'\n'
    COMPREPLY=($(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" _BLUELM_COMPLETE=complete_bash "$1" 2>/dev/null))
}
complete -o default -F _bluelm bluelm
