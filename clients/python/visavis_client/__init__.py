"""Python client of visavis."""
