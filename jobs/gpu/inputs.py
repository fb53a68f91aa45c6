"""Write the pictures and labels that the steps segment: CamVid where it is there, else the demo's scenes.

python -m jobs.gpu.inputs FOLDER NUMBER
"""

import sys
from pathlib import Path

from jobs.bench.data import find_pictures, write_inputs

if __name__ == "__main__":
    write_inputs(find_pictures(None, None).repeated(int(sys.argv[2])), Path(sys.argv[1]))
