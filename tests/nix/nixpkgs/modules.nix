# A small module system of our own, as much of NixOS's as our modules use: imports, nested options, mkIf, mkMerge, mkDefault,
# mkForce, types that are checked, submodules (also with a free form), and errors in about the words of the real one.
lib:
let
  inherit (builtins)
    all any attrNames concatMap elem filter foldl' head isAttrs isBool isFloat isFunction isInt isList isPath isString length
    mapAttrs match removeAttrs substring toJSON zipAttrsWith;
  inherit (lib) concatMapStringsSep optional;

  isPackage = value: isAttrs value && value ? outPath;
  isMarked = value: isAttrs value && elem (value._type or null) [ "if" "merge" "override" ];
  isOption = value: isAttrs value && (value._type or null) == "option";
  show = builtins.concatStringsSep ".";

  mkOption = attributes: attributes // { _type = "option"; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };

  # A definition as what is left of it: [ { priority; value; } ].
  discharge =
    value:
    if !isMarked value then [ { priority = 100; inherit value; } ]
    else if value._type == "if" then (if value.condition then discharge value.content else [ ])
    else if value._type == "merge" then concatMap discharge value.contents
    else map (found: found // { inherit (value) priority; }) (discharge value.content);

  # The same as several sets of attributes, with the marks at their values.
  pushDown =
    value:
    if !isMarked value then [ value ]
    else if value._type == "if" then map (mapAttrs (_: mkIf value.condition)) (pushDown value.content)
    else if value._type == "merge" then concatMap pushDown value.contents
    else map (mapAttrs (_: mkOverride value.priority)) (pushDown value.content);

  # Those of the strongest priority win, and are merged as the type says.
  mergeDefinitions =
    location: type: definitions:
    let
      found = concatMap discharge definitions;
      strongest = foldl' (least: one: if one.priority < least then one.priority else least) 9999 found;
      values = map (one: one.value) (filter (one: one.priority == strongest) found);
    in
    if all type.check values then type.merge location values
    else
      let
        wrong = head (filter (value: !type.check value) values);
      in
      throw "A definition for option `${show location}' is not of type `${type.description}': ${describe wrong}";

  describe = value: if isFunction value then "a function" else if isPackage value then "a package" else toJSON value;

  one =
    location: values:
    if all (value: value == head values) values then head values
    else throw "The option `${show location}' has conflicting definition values";

  type = description: check: { _type = "option-type"; inherit description check; merge = one; getSubOptions = { }; };

  types = rec {
    bool = type "boolean" isBool;
    int = type "signed integer" isInt;
    float = type "floating point number" isFloat;
    number = type "signed integer or floating point number" (value: isInt value || isFloat value);
    str = type "string" isString;
    lines = str // { description = "strings concatenated with \"\\n\""; merge = _: builtins.concatStringsSep "\n"; };
    path = type "absolute path" (value: isPath value || isPackage value || (isString value && substring 0 1 value == "/"));
    package = type "package" isPackage;
    port = ints.between 0 65535;
    raw = type "raw value" (_: true);
    json = anything // { description = "JSON value"; elements = anything; };
    lazyAttrsOf = attrsOf;
    strMatching = pattern: type "string matching the pattern ${pattern}" (value: isString value && match pattern value != null);
    enum = values: type "one of ${concatMapStringsSep ", " toJSON values}" (value: elem value values);

    ints = {
      positive = type "positive integer, meaning >0" (value: isInt value && value > 0);
      unsigned = type "unsigned integer, meaning >=0" (value: isInt value && value >= 0);
      between =
        low: high:
        type "integer between ${toString low} and ${toString high} (both inclusive)" (
          value: isInt value && value >= low && value <= high
        );
    };

    # Sets are merged, lists joined, all else must be the same.
    anything = type "anything" (_: true) // {
      merge =
        location: values:
        if length values > 0 && all (value: isAttrs value && !isPackage value) values then
          dropEmpty (zipAttrsWith (name: mergeOne (location ++ [ name ]) anything) (concatMap pushDown values))
        else if all isList values then concatMap (value: value) values
        else one location values;
    };

    nullOr = inner: type "null or ${inner.description}" (value: value == null || inner.check value) // {
      merge = location: values: if any (value: value == null) values then one location values else inner.merge location values;
      inherit (inner) getSubOptions;
    };
    either = first: second: type "${first.description} or ${second.description}" (value: first.check value || second.check value) // {
      merge = location: values: if all first.check values then first.merge location values else second.merge location values;
    };
    oneOf = choices: foldl' either (head choices) (builtins.tail choices);
    listOf = inner: type "list of ${inner.description}" isList // {
      merge = location: values: concatMap (value: map (item: mergeDefinitions (location ++ [ "*" ]) inner [ item ]) value) values;
      inherit (inner) getSubOptions;
    };
    attrsOf = inner: type "attribute set of ${inner.description}" isAttrs // {
      merge = location: values: dropEmpty (zipAttrsWith (name: mergeOne (location ++ [ name ]) inner) (concatMap pushDown values));
      inherit (inner) getSubOptions;
      elements = inner;
    };
    submodule = module: type "submodule" (value: isAttrs value || isFunction value || isPath value) // {
      merge =
        location: values:
        let
          modules = [ module ] ++ map (value: if isAttrs value then { config = value; } else value) values;
        in
        (evaluate location modules { name = builtins.elemAt location (length location - 1); }).config;
      getSubOptions = (evaluate [ ] [ module ] { name = "<name>"; }).options;
    };
  };

  # A key whose definitions are all off is not there.
  mergeOne =
    location: inner: definitions:
    if concatMap discharge definitions == [ ] then null else { value = mergeDefinitions location inner definitions; };
  dropEmpty = found: mapAttrs (_: kept: kept.value) (lib.filterAttrs (_: kept: kept != null) found);

  normal =
    arguments: module:
    let
      read = if isPath module || isString module then import module else module;
      given = if isFunction read then read arguments else read;
      whole = given ? config || given ? options;
    in
    {
      imports = given.imports or [ ];
      options = given.options or { };
      config = if whole then given.config or { } else removeAttrs given [ "imports" "freeformType" "_file" ];
      freeform = optional (given ? freeformType) given.freeformType;
    };

  mergeOptions =
    location:
    zipAttrsWith (
      name: found:
      let
        here = location ++ [ name ];
      in
      if !any isOption found then mergeOptions here found
      else if length found == 1 then head found
      else throw "The option `${show here}' is declared twice"
    );

  # The values of `options` as `definitions` have them; what no option is for is of the free form, where there is one.
  walk =
    location: freeform: options: definitions:
    let
      byName = zipAttrsWith (_: values: values) (concatMap pushDown definitions);
      # Looked at are only those without an option: the condition of another one may ask for our own values.
      undeclared = lib.filterAttrs (_: values: concatMap discharge values != [ ]) (removeAttrs byName (attrNames options));
      value =
        name: option:
        let
          here = location ++ [ name ];
          given = byName.${name} or [ ];
        in
        if !isOption option then walk here [ ] option given
        else if concatMap discharge given != [ ] then mergeDefinitions here option.type given
        else if option ? default then mergeDefinitions here option.type [ option.default ]
        else throw "The option `${show here}' was accessed but has no value defined. Try setting the option.";
    in
    if undeclared == { } then mapAttrs value options
    else if freeform == [ ] then throw "The option `${show (location ++ [ (head (attrNames undeclared)) ])}' does not exist."
    else mapAttrs (name: mergeDefinitions (location ++ [ name ]) (head freeform).elements) undeclared // mapAttrs value options;

  evaluate =
    location: modules: arguments:
    let
      given = { inherit config options; lib = lib // self; } // arguments;
      collect = concatMap (module: let found = normal given module; in [ found ] ++ collect found.imports);
      all' = collect modules;
      options = mergeOptions location (map (module: module.options) all');
      config = walk location (concatMap (module: module.freeform) all') options (map (module: module.config) all');
    in
    { inherit config options; };

  self = {
    inherit mkIf mkMerge mkOption mkOverride types;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkEnableOption = what: mkOption { type = types.bool; default = false; example = true; description = "Whether to enable ${what}."; };
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    evalModules = { modules, specialArgs ? { } }: evaluate [ ] modules specialArgs;
    isOption = isOption;
  };
in
self
