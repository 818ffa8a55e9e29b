"""The benchmark: Paythread beside other GraphQL servers and beside servers that do almost nothing. `./dev bench`."""
