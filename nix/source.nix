# What the wheel is made from, and no more: a change of a document or a test builds nothing anew.
builtins.path {
  name = "compute-endpoint-source";
  path = ../.;
  filter =
    path: _:
    let
      inside = builtins.substring (builtins.stringLength (toString ../. + "/")) (-1) path;
      top = builtins.head (builtins.match "([^/]+).*" inside);
    in
    builtins.elem top [ "LICENSE" "README.md" "endpoint" "pyproject.toml" "schemas" ]
    && builtins.match ".*(__pycache__|\\.pyc)" path == null;
}
