"""Write reports."""
