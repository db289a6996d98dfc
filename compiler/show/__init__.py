"""Plans and figures as text, pictures and pages."""
