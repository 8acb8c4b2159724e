"""The keys and certificates of a workspace, made by the functions behind `fx workspace certify` and the like:

    cd DIRECTORY && python pki.py COLLABORATOR…     # a program of its own, for these work in the directory they are started in

Leaves DIRECTORY/cert as an aggregator and collaborators on one machine would have it.
"""

import pathlib
import sys

from openfl.interface import aggregator, collaborator, workspace

FQDN = "localhost"


def main(*collaborators):
    pathlib.Path("plan").mkdir()
    workspace.certify()
    aggregator.generate_cert_request(FQDN)
    aggregator.certify(FQDN, silent=True)
    for name in collaborators:
        collaborator.generate_cert_request(name, silent=True, skip_package=False)
        collaborator.certify(name, silent=True, request_pkg=f"col_{name}_to_agg_cert_request.zip")


if __name__ == "__main__":
    main(*sys.argv[1:])
