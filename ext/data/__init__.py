"""Reference data that services and back ends share: the dictionary of products with its price bands."""
