"""A contract for import-linter: this room may import these packages, itself and the standard library, nothing else."""

from __future__ import annotations

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """Import-linter can forbid names; a room that must stay small is better kept by naming what it may import."""

    type_name = "only"

    room = fields.StringField()
    may_import = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        if self.room not in graph.modules:  # not built yet
            return ContractCheck(kept=True)
        inside = {self.room} | graph.find_descendants(self.room)
        strangers = sorted(
            f"{module} imports {imported}"
            for module in inside
            for imported in graph.find_modules_directly_imported_by(module)
            if imported not in inside and not self._allows(imported)
        )
        return ContractCheck(kept=not strangers, metadata={"strangers": strangers})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["strangers"]:
            output.print_error(line)
        output.new_line()

    def _allows(self, imported: str) -> bool:
        if imported.split(".")[0] in sys.stdlib_module_names:
            return True
        return any(imported == name or imported.startswith(f"{name}.") for name in self.may_import)
