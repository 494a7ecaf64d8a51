"""What every log processor needs: each record by itself, so that none of them stops the others."""
