# What we need and nixpkgs' Python set may lack, from the source archives that the lock names.
# The lock lists a wheel and an archive for each package and does not say which hash is whose, so the archive's stands here.
{ python3Packages, locked }:
let
  inherit (builtins) elem replaceStrings;
  inherit (python3Packages) buildPythonPackage fetchPypi;

  fromLock =
    pname: sha256:
    let
      inherit (locked.${pname}) hashes version;
    in
    if elem sha256 hashes then
      {
        inherit pname version;
        pyproject = true;
        doCheck = false;
        src = fetchPypi {
          pname = replaceStrings [ "-" ] [ "_" ] pname;
          inherit sha256 version;
        };
      }
    else
      throw "nix/python-packages.nix: the hash of ${pname} is not among those of ${version} in the lock: give the new one of the source archive";
in
{
  parsl = buildPythonPackage (
    fromLock "parsl" "8a0550a51dace16bb1c79b2538de55cb9e72bdb1748c9b9c1a733718a019d1f1"
    // {
      build-system = [ python3Packages.setuptools ];
      dependencies = with python3Packages; [
        dill
        filelock
        psutil
        pyzmq
        requests
        setproctitle
        sortedcontainers
        tblib
        typeguard
        typing-extensions
      ];
      pythonRelaxDeps = true;
      pythonImportsCheck = [ "parsl" ];
    }
  );

  globus-identity-mapping = buildPythonPackage (
    fromLock "globus-identity-mapping" "05ddee6849cfaeee4a7da1b51b646b3a3c5b6189e3ac2048cd85f3fb31e34e8c"
    // {
      build-system = [ python3Packages.poetry-core ];
      dependencies = with python3Packages; [
        click
        marshmallow
        marshmallow-oneofschema
        typing-extensions
      ];
      pythonRelaxDeps = true;
      pythonImportsCheck = [ "globus_identity_mapping" ];
    }
  );
}
