"""python -m coconut_lm, and so `torchrun -m coconut_lm`."""

from coconut_lm.cli import main

if __name__ == "__main__":
    main()
