"""How good plans are: measures that agree with the field's published ones. numpy only."""
