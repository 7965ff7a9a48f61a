# A closure of small paths: file n refers to n-1 and n-7. With above it gets two new paths on top.
{ salt, above ? "" }:
let
  file = name: text: derivation {
    inherit name text;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo \"$text\" > $out" ];
  };
  layers = builtins.genList (n: file "layer${toString n}" ''
    salt ${salt}
    ${if n > 0 then "${builtins.elemAt layers (n - 1)}" else ""}
    ${if n > 6 then "${builtins.elemAt layers (n - 7)}" else ""}
  '') 60;
  root = file "root" "${builtins.elemAt layers 59} ${builtins.elemAt layers 30}";
  new = file "new-${above}" "${root} ${builtins.elemAt layers 3}";
in
if above == "" then root else file "above-${above}" "${new} ${builtins.elemAt layers 58}"
