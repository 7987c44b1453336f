from dataclasses import replace
import pytest
from tests.parity import test_families as t
from tests.parity.test_families import *
for name in list(t.GRIDS): 
    t.GRIDS[name]=replace(t.GRIDS[name],examples=70)
