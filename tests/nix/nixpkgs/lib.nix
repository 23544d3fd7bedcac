# The few names of nixpkgs' library that the flake and the modules use.
let
  inherit (builtins)
    all any attrNames attrValues concatStringsSep elem filter genList isAttrs length listToAttrs mapAttrs replaceStrings
    stringLength substring;

  lower = "abcdefghijklmnopqrstuvwxyz";
  upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  letters = text: genList (n: substring n 1 text) (stringLength text);

  basic = rec {
    inherit all any attrNames attrValues concatStringsSep elem filter listToAttrs mapAttrs replaceStrings stringLength;
    inherit (builtins) concatMap foldl' head;
    genAttrs = names: value: listToAttrs (map (name: nameValuePair name (value name)) names);
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = change: attributes: listToAttrs (mapAttrsToList change attributes);
    mapAttrsToList = change: attributes: map (name: change name attributes.${name}) (attrNames attributes);
    filterAttrs =
      wanted: attributes:
      genAttrs (filter (name: wanted name attributes.${name}) (attrNames attributes)) (name: attributes.${name});
    filterAttrsRecursive =
      wanted: attributes:
      mapAttrs (_: value: if isAttrs value then filterAttrsRecursive wanted value else value) (filterAttrs wanted attributes);
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    optionalAttrs = condition: attributes: if condition then attributes else { };
    optionalString = condition: text: if condition then text else "";
    concatMapStringsSep = separator: change: values: concatStringsSep separator (map change values);
    concatLines = lines: concatStringsSep "" (map (line: line + "\n") lines);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text: text == removeSuffix suffix text + suffix;
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix =
      suffix: text:
      let
        rest = stringLength text - stringLength suffix;
      in
      if rest >= 0 && substring rest (-1) text == suffix then substring 0 rest text else text;
    stringAsChars = change: text: concatStringsSep "" (map change (letters text));
    toLower = replaceStrings (letters upper) (letters lower);
    count = wanted: values: length (filter wanted values);
    versionOlder = a: b: builtins.compareVersions a b < 0;
    licenses.asl20 = { spdxId = "Apache-2.0"; };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
  };

  lib = basic // import ./modules.nix basic // {
    # A system as far as our modules go: what they set, refused where an assertion is not met, and nothing to boot.
    nixosSystem =
      { system, modules }:
      let
        pkgs = import ./packages.nix { inherit lib system; };
        found = lib.evalModules {
          modules = [ ./nixos.nix ] ++ modules;
          specialArgs = { inherit pkgs; };
        };
        failed = filter (one: !one.assertion) found.config.assertions;
        toplevel = import ./system.nix { inherit lib pkgs; inherit (found) config; };
        built =
          if failed == [ ] then toplevel
          else throw "Failed assertions:${basic.concatMapStringsSep "" (one: "\n- ${one.message}") failed}";
      in
      { inherit (found) options; config = found.config // { system = found.config.system // { build.toplevel = built; }; }; };
  };
in
lib
