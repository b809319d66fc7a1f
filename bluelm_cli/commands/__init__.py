"""One thin file a command: flags -> a call of the stage -> print what it yields."""
