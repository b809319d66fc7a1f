"""How weights become integers, and what is done to them before so that less is lost: one method a file."""
