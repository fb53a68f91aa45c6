"""The building blocks with a public name; `segment` exports them."""
