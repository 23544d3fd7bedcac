# What we need and nixpkgs' Python set may lack, from the source archives that the lock names.
# The lock lists a wheel and an archive for each package and does not say which hash is whose, so the archive's stands here.
{ python3Packages, locked }:
let
  relaxed = import ./relaxed.nix;

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
rec {
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
      pythonImportsCheck = [ "parsl" ];
    }
    // relaxed
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
      pythonImportsCheck = [ "globus_identity_mapping" ];
    }
    // relaxed
  );

  # For the demo and for tests: what users have.
  globus-compute-sdk = buildPythonPackage (
    fromLock "globus-compute-sdk" "f9bab9278f2ef5dff8083fabe1aab51575a40fb66031825e1e9a2f16af14fe7e"
    // {
      build-system = [ python3Packages.setuptools ];
      dependencies = [ globus-compute-common ] ++ (with python3Packages; [
        colorama
        dill
        exceptiongroup
        globus-sdk
        packaging
        pika
        requests
        rich
        tblib
        texttable
      ]);
      pythonImportsCheck = [ "globus_compute_sdk" ];
    }
    // relaxed
  );

  globus-compute-common = buildPythonPackage (
    fromLock "globus-compute-common" "ebe2d37da999cf056d2d651267414a523b56df603bc7a388e764a7179de41f0d"
    // {
      build-system = [ python3Packages.setuptools ];
      dependencies = [ python3Packages.pydantic ];
      pythonImportsCheck = [ "globus_compute_common" ];
    }
    // relaxed
  );
}
