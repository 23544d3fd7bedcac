# What `nix flake check` builds: the packages, the program at work on the schemas' examples, and a NixOS test for each file of
# checks/, which boots machines (nix build .#checks.SYSTEM.NAME for one of them).
{ pkgs, packages, modules }:
let
  inherit (builtins) attrNames listToAttrs match readDir;

  nameOf = file: builtins.head (match "(.*)\\.nix" file);
  machines = map (file: {
    name = nameOf file;
    value = pkgs.testers.runNixOSTest (import (./checks + "/${file}") { inherit modules; });
  }) (attrNames (readDir ./checks));
in
{
  inherit (packages) endpoint hub;

  examples = pkgs.runCommand "examples" { nativeBuildInputs = [ packages.endpoint ]; } ''
    cp -r ${../schemas/examples} examples
    chmod -R u+w examples
    cd examples
    for directory in valid/endpoint-directory/*; do
      globus-compute-endpoint check-config $directory
    done
    for kind in endpoint user user-environment identity-mapping hub site; do
      globus-compute-endpoint check-config --kind $kind valid/$kind/*.yaml
      # One program for all of them: it says for each that it is not valid, and once that not all are.
      status=0
      globus-compute-endpoint check-config --json --alone --kind $kind invalid/$kind/*.yaml > found.json || status=$?
      refused=$(grep -c '"valid": false' found.json)
      if [ $status != 78 ] || [ $refused != $(($(ls invalid/$kind/*.yaml | wc -l) + 1)) ]; then
        echo "not every file of invalid/$kind is refused (status $status)" >&2
        cat found.json >&2
        exit 1
      fi
    done
    touch $out
  '';
}
// listToAttrs machines
