# Reads a locked requirements file: { NAME = { version = "1.2"; hashes = [ "sha256 in hexadecimal digits" ... ]; }; ... }.
# A package that is locked at several versions, one for each Python, is there with the first.
file:
let
  inherit (builtins) concatMap elemAt filter genList isList length listToAttrs readFile split;

  hashesIn = text: map (found: elemAt found 0) (filter isList (split "--hash=sha256:([0-9a-f]+)" text));

  # Text, name and version, text, name and version, ..., text: each text holds the hashes of what stands before it.
  parts = split "\n([a-z0-9][a-z0-9-]*)==([^ ;\n]+)" ("\n" + readFile file);
  entry = n: {
    name = elemAt (elemAt parts (2 * n + 1)) 0;
    value = {
      version = elemAt (elemAt parts (2 * n + 1)) 1;
      hashes = hashesIn (elemAt parts (2 * n + 2));
    };
  };
in
listToAttrs (genList entry ((length parts - 1) / 2))
