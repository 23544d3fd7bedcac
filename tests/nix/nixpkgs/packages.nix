# machine.nix is the test's: { python = "an interpreter with the locked packages"; }.
{ lib, system }:
let
  inherit (builtins) concatStringsSep functionArgs intersectAttrs isPath listToAttrs;
  inherit (import ./machine.nix) python;

  # A bare derivation that runs `script` with what the attributes name, and the machine's programs.
  run =
    name: attributes: script:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-euc" ''export PATH="$tools/usr/bin:/bin"; ${script}'' ];
        tools = concatStringsSep "" (map (input: "${input}/bin:") (attributes.nativeBuildInputs or [ ]));
      }
      // removeAttrs attributes [ "nativeBuildInputs" ]
    );

  empty = name: run name { } "mkdir $out";

  # As in nixpkgs, what no builder knows is refused: a misspelt attribute must not go unnoticed.
  known = {
    pname = null;
    version = null;
    pyproject = null;
    src = null;
    build-system = null;
    dependencies = null;
    pythonRelaxDeps = null;
    pythonImportsCheck = null;
    doCheck = null;
    meta = null;
  };
  checked =
    attributes:
    let
      unknown = removeAttrs attributes (builtins.attrNames known);
    in
    if unknown == { } then attributes else throw "unknown: ${toString (builtins.attrNames unknown)}";

  python3Packages =
    listToAttrs (
      map (name: { inherit name; value = empty name; }) [
        "click" "cryptography" "dill" "filelock" "globus-sdk" "hatchling" "jinja2" "jsonschema" "marshmallow"
        "marshmallow-oneofschema" "pika" "poetry-core" "psutil" "pybase64" "pyzmq" "requests" "ruamel-yaml" "setproctitle"
        "setuptools" "sortedcontainers" "tblib" "typeguard" "typing-extensions"
      ]
    )
    // {
      # The machine's Python has the package already, so its archive is named and not fetched.
      fetchPypi = { pname, version, sha256 }: { name = "${pname}-${version}.tar.gz"; inherit sha256; };
      buildPythonPackage =
        attributes:
        let
          package = checked attributes;
        in
        run "${package.pname}-${package.version}" {
          needs = package.dependencies ++ package.build-system;
          archive = "${package.src.name} ${package.src.sha256}";
        } ''mkdir $out; echo "$archive" > $out/archive'';

      buildPythonApplication =
        attributes:
        let
          package = checked attributes;
        in
        run "${package.pname}-${package.version}" {
          inherit (package) src;
          needs = package.dependencies ++ package.build-system;
          modules = package.pythonImportsCheck;
        } ''
          cp -r "$src" source; chmod -R u+w source; cd source
          export HOME=$PWD
          ${python} -m hatchling build -t wheel -d dist
          ${python} -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --no-deps --no-compile \
            --ignore-installed --no-warn-script-location --target $out/lib dist/*.whl
          mv $out/lib/bin $out/bin
          for program in $out/bin/*; do
            sed -i "1a import sys; sys.path.insert(0, '$out/lib')" "$program"
          done
          cd /
          for module in $modules; do
            PYTHONPATH=$out/lib ${python} -c "import sys, $module; assert sys.modules['$module'].__file__.startswith('$out')"
          done
        '' // { inherit (package) meta version; };
    };

  packages = {
    inherit lib python3Packages;
    git = empty "git";
    gnumake = empty "gnumake";
    python3 = empty "python3";
    rabbitmq-server = empty "rabbitmq-server";

    runCommand = run;
    mkShell = { packages }: run "shell" { needs = packages; } "mkdir $out";
    callPackage =
      function: arguments:
      let
        build = if isPath function then import function else function;
      in
      build (intersectAttrs (functionArgs build) packages // arguments);
  };
in
packages
