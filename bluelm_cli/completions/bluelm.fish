# Completion of bluelm's commands, flags and choices for fish: bluelm itself is asked.
complete --command bluelm --no-files --arguments "(env _BLUELM_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) bluelm)" --condition "env _BLUELM_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) bluelm"
