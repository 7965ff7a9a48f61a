# Two hundred small derivations, of two outputs every tenth, each referring to the one
# before the last, and one that refers to all.
{ salt ? "0" }:
let
  sh = args: derivation ({ system = builtins.currentSystem; builder = "/bin/sh"; } // args);
  one = n: sh ({
    name = "small-${toString n}";
    args = [ "-c" "echo ${salt} ${toString n} ${if n > 1 then "${one (n - 2)}" else ""} > $out; test -z \"$doc\" || echo about > $doc" ];
  } // (if n / 10 * 10 == n then { outputs = [ "out" "doc" ]; } else { }));
  all = builtins.genList one 200;
in
sh { name = "small-all"; args = [ "-c" "echo ${toString all} > $out" ]; }
