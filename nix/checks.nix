# What `nix flake check` builds: the package, and the package at work on the schemas' examples.
{ pkgs, packages }:
{
  inherit (packages) endpoint;

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
