# The program. Its name, its version and what it needs are read from pyproject.toml, so that they stand there alone.
{ lib, python3Packages }:
let
  inherit (builtins) fromTOML head match readFile replaceStrings;

  project = (fromTOML (readFile ../pyproject.toml)).project;

  available = python3Packages // import ./python-packages.nix {
    inherit python3Packages;
    locked = import ./locked.nix ../requirements/agent.txt;
  };

  # "ruamel.yaml>=0.18" is ruamel-yaml in nixpkgs.
  attributeOf = requirement: replaceStrings [ "." "_" ] [ "-" "-" ] (head (match "([A-Za-z0-9._-]+).*" requirement));
in
python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  pyproject = true;
  src = ../.;

  build-system = [ python3Packages.hatchling ];
  dependencies = map (requirement: available.${attributeOf requirement}) project.dependencies;

  # nixpkgs has one version of each package, which need not be in our ranges: the checks say whether it works.
  pythonRelaxDeps = true;

  # The tests want a broker and the official packages: `make test` runs them.
  doCheck = false;
  pythonImportsCheck = [ "endpoint.cli.main" "endpoint.engines.build" ];

  meta = {
    inherit (project) description;
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "globus-compute-endpoint";
  };
}
