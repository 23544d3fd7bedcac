# machine.nix is the test's: { interpreter = "a Python"; site = "a folder with the locked packages, none of them ours";
# builder = "a Python with hatchling"; }.
{ lib, system }:
let
  inherit (builtins) attrNames concatStringsSep functionArgs intersectAttrs isPath listToAttrs removeAttrs toJSON;
  inherit (import ./machine.nix) builder interpreter site;

  # A bare derivation that runs `script` with what the attributes name, and the machine's programs.
  run =
    name: attributes: script:
    let
      built = derivation (
        {
          inherit name system;
          builder = "/bin/sh";
          args = [ "-euc" ''export PATH="$tools/usr/bin:/bin"; cd "$NIX_BUILD_TOP"; ${script}'' ];
          tools = concatStringsSep "" (map (input: "${input}/bin:") (attributes.nativeBuildInputs or [ ]));
        }
        // removeAttrs attributes [ "meta" "nativeBuildInputs" "passthru" ]
      );
    in
    built // (attributes.passthru or { }) // { meta = attributes.meta or { }; passthru = attributes.passthru or { }; };

  empty = name: run name { } "mkdir $out";

  # As in nixpkgs, what no builder knows is refused: a misspelt attribute must not go unnoticed.
  known = {
    pname = null;
    version = null;
    pyproject = null;
    src = null;
    postPatch = null;
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
      unknown = removeAttrs attributes (attrNames known);
    in
    if unknown == { } then attributes else throw "unknown: ${toString (attrNames unknown)}";

  # The machine's Python has the package already, so its archive is named and not fetched.
  named =
    package:
    run "${package.pname}-${package.version}" {
      needs = package.dependencies ++ package.build-system;
      archive = "${package.src.name} ${package.src.sha256}";
    } ''mkdir $out; echo "$archive" > $out/archive'';

  built =
    package:
    run "${package.pname}-${package.version}"
      {
        inherit (package) meta src postPatch;
        needs = package.dependencies ++ package.build-system;
        modules = package.pythonImportsCheck;
        passthru = { inherit (package) version; };
      }
      ''
        cp -r "$src" source; chmod -R u+w source; cd source
        export HOME=$PWD
        eval "$postPatch"
        ${builder} -m hatchling build -t wheel -d dist
        ${builder} -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --no-deps --no-compile \
          --ignore-installed --no-warn-script-location --target $out/lib dist/*.whl
        mv $out/lib/bin $out/bin
        rm $out/lib/*.dist-info/direct_url.json $out/lib/*.dist-info/RECORD
        cd /
        # As in nixpkgs, and the same each time.
        ${interpreter} -I -m compileall -q --invalidation-mode unchecked-hash $out/lib
        for module in $modules; do
          ${interpreter} -I -c "import sys; sys.path[:0] = ['$out/lib', '${site}']; import $module; assert sys.modules['$module'].__file__.startswith('$out')"
        done
      '';

  python3Packages =
    listToAttrs (
      map (name: { inherit name; value = empty name; }) [
        "aiosqlite" "ansible-core" "click" "colorama" "cryptography" "dill" "exceptiongroup" "filelock" "globus-sdk" "greenlet" "hatchling"
        "httpx" "jinja2" "jsonschema" "marshmallow" "marshmallow-oneofschema" "packaging" "pika" "poetry-core" "psutil"
        "pybase64" "pydantic" "pyjwt" "pytest-testinfra" "python-multipart" "pyzmq" "requests" "rich" "ruamel-yaml" "setproctitle" "setuptools"
        "sortedcontainers" "starlette" "tblib" "texttable" "typeguard" "typing-extensions" "uvicorn"
      ]
    )
    // {
      sqlalchemy = empty "sqlalchemy" // { optional-dependencies.asyncio = [ python3Packages.greenlet ]; };
      fetchPypi = { pname, version, sha256 }: { name = "${pname}-${version}.tar.gz"; inherit sha256; };
      buildPythonPackage =
        attributes:
        let
          package = checked attributes;
        in
        if package.src ? sha256 then named package else built package;
    };

  # An environment is one that Python makes itself, with the packages in it by their paths.
  withPackages =
    choose:
    run "python3-env" { modules = choose python3Packages; } ''
      version=$(${interpreter} -I -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
      packages=$out/lib/$version/site-packages
      mkdir -p $out/bin $packages
      printf 'home = %s\ninclude-system-site-packages = false\n' $(dirname ${interpreter}) > $out/pyvenv.cfg
      ln -s ${interpreter} $out/bin/python3
      ln -s ${interpreter} $out/bin/$version
      for module in $modules; do
        [ ! -d $module/lib ] || echo $module/lib >> $packages/a.pth
        for program in $module/bin/*; do
          [ ! -e $program ] || { { echo "#!$out/bin/python3 -I"; sed 1d $program; } > $out/bin/''${program##*/}; chmod +x $out/bin/''${program##*/}; }
        done
      done
      echo ${site} > $packages/b.pth
    '';

  # The machine's own library, where ours expects the package's.
  linux-pam = run "linux-pam" { } ''
    mkdir -p $out/lib
    for found in /lib/*/libpam.so.0 /usr/lib64/libpam.so.0; do
      [ ! -e $found ] || ln -sf $found $out/lib/libpam.so.0
    done
  '';

  # What a host's Nix has to be told of the paths, in the form of `nix-store --load-db`.
  systemd = run "systemd" { } "mkdir -p $out/bin; ln -s /usr/bin/busctl $out/bin/busctl";

  closureInfo =
    { rootPaths }:
    derivation {
      name = "closure-info";
      inherit system;
      builder = "/bin/sh";
      __structuredAttrs = true;
      exportReferencesGraph.closure = rootPaths;
      args = [ "-euc" "exec ${interpreter} -I ${./closure_info.py}" ];
    };

  format = _: {
    type = lib.types.json;
    generate = name: value: run name { value = toJSON value; passAsFile = [ "value" ]; } ''
      ${interpreter} -I -c 'import json, sys; json.dump(json.load(open(sys.argv[1])), open(sys.argv[2], "w"), indent=2)' $valuePath $out
      echo >> $out
    '';
  };

  packages = {
    inherit closureInfo lib linux-pam python3Packages systemd;
    erlang = empty "erlang";
    git = empty "git";
    gnugrep = empty "gnugrep";
    gnumake = empty "gnumake";
    nixfmt-tree = run "nixfmt-tree" { meta.mainProgram = "treefmt"; } "mkdir $out";
    python3 = empty "python3" // { inherit withPackages; };
    rabbitmq-server = empty "rabbitmq-server";
    util-linux = empty "util-linux";
    coreutils = empty "coreutils";
    python = interpreter;
    runtimeShell = "/bin/sh";
    stdenv.hostPlatform = { inherit system; };

    formats.json = format;
    runCommand = run;
    writeText = name: text: run name { inherit text; passAsFile = [ "text" ]; } "cp $textPath $out";

    # The machines are built and not booted, and what is to be done with them is compiled.
    testers.runNixOSTest =
      test:
      let
        machine = module: (lib.nixosSystem { inherit system; modules = [ module ]; }).config.system.build.toplevel;
      in
      run "vm-test-${test.name}" {
        machines = map machine (builtins.attrValues test.nodes);
        script = test.testScript;
        passAsFile = [ "script" ];
      } ''
        ${interpreter} -I -c 'import sys; compile(open(sys.argv[1]).read(), "testScript", "exec")' $scriptPath
        echo $machines > $out
      '';

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
