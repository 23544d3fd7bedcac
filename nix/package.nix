# The program, as a Python package. Its name, its version and what it needs are read from pyproject.toml, so that they stand
# there alone. extras: of that file's optional dependencies, those that are wanted too.
{ lib, linux-pam, python3Packages, systemd, extras ? [ ] }:
let
  inherit (builtins) concatMap elemAt filter fromTOML isList match readFile replaceStrings split;

  project = (fromTOML (readFile ../pyproject.toml)).project;

  available = python3Packages // import ./python-packages.nix {
    inherit python3Packages;
    # The agent's lock wins: the other one is for what tests and the demo need.
    locked = import ./locked.nix ../requirements/peer-sdk.txt // import ./locked.nix ../requirements/agent.txt;
  };

  # "ruamel.yaml>=0.18" is ruamel-yaml in nixpkgs; "SQLAlchemy[asyncio]>=2" is sqlalchemy and what its `asyncio` needs.
  packagesOf =
    requirement:
    let
      parts = match "([A-Za-z0-9._-]+)(\\[([a-z, -]+)])?.*" requirement;
      package = available.${lib.toLower (replaceStrings [ "." "_" ] [ "-" "-" ] (elemAt parts 0))};
      wanted = if elemAt parts 2 == null then [ ] else filter (part: !isList part) (split "[ ,]+" (elemAt parts 2));
    in
    [ package ] ++ concatMap (extra: package.optional-dependencies.${extra} or [ ]) wanted;

  requirements = project.dependencies ++ concatMap (extra: project.optional-dependencies.${extra}) extras;
in
python3Packages.buildPythonPackage (
  {
    pname = project.name;
    inherit (project) version;
    pyproject = true;
    src = import ./source.nix;

    build-system = [ python3Packages.hatchling ];
    dependencies = concatMap packagesOf requirements;

    # What is found by its path elsewhere: the library for PAM, the program that asks systemd for a scope, and what users'
    # processes have as PATH where neither PAM nor the site says.
    postPatch = ''
      replaced() { grep -qF "$2" "$1" && sed -i "s|$2|$3|" "$1"; }
      replaced endpoint/privileged/pam.py libpam.so.0 ${linux-pam}/lib/libpam.so.0
      replaced endpoint/privileged/scope.py /usr/bin/busctl ${systemd}/bin/busctl
      replaced endpoint/privileged/child.py '"/usr/local/bin:' '"/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/bin:'
    '';

    # The tests want a broker and the official packages: `make test` runs them.
    doCheck = false;
    pythonImportsCheck = [ "endpoint.cli.main" "endpoint.engines.build" ] ++ lib.optional (builtins.elem "hub" extras) "endpoint.cli.hub";

    meta = {
      inherit (project) description;
      license = lib.licenses.asl20;
      platforms = lib.platforms.linux;
      mainProgram = "globus-compute-endpoint";
    };
  }
  // import ./relaxed.nix
)
