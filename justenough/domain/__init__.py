"""What things are and how they are decided: frozen models and pure functions. No I/O, no clock."""
