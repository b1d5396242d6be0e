"""Reading of watched runs for the viewing side: through TensorBoard's data provider, or from local event files."""
