"""A plan as one page to explore: its data, and the page that shows them."""
