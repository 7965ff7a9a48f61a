# A closure of more than fifty store paths for the end-to-end test: references
# (self references too), symlinks, executables, empty files and directories,
# odd file names, and one path over 200 MB of real file content.
{ salt ? "0" }:
let
  mk = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" script ];
    PATH = "/usr/bin:/bin:/usr/sbin";
  };

  big = mk "big-1.0" ''
    mkdir -p $out/share
    { find /usr/lib -type f -size -32M -print0 2>/dev/null | sort -z | xargs -0 cat 2>/dev/null || true; } | head -c 160000000 > $out/share/real
    { echo ${salt}; gzip -1n < $out/share/real | head -c 64000000; } > $out/share/noise
  '';

  shapes = mk "shapes-1.0" ''
    mkdir -p $out/bin $out/empty-dir/nested $out/lib "$out/dir with spaces"
    : > $out/empty
    printf 'x' > $out/one-byte
    printf '12345678' > $out/eight-bytes
    printf '#!/bin/sh\necho hello ${salt}\n' > $out/bin/hello
    chmod +x $out/bin/hello
    ln -s hello $out/bin/hi
    ln -s ../empty-dir $out/lib/dir-link
    ln -s /does/not/exist $out/lib/dangling
    printf 'a' > "$out/dir with spaces/a file"
    printf 'b' > "$out/).."
    i=0; while [ $i -lt 300 ]; do echo "$i ${salt}" > $out/lib/f$i; i=$((i+1)); done
  '';

  file = derivation {
    name = "plain-file.txt"; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "printf 'only a file ${salt}' > $out" ]; PATH = "/usr/bin:/bin";
  };

  # Sixty small packages; package n refers to n-1 and n-7 and to itself.
  pkgs = builtins.genList (n: mk "pkg${toString n}-1.0" ''
    mkdir -p $out/bin $out/lib
    echo "salt ${salt} self $out" > $out/lib/self
    ${if n > 0 then "echo ${builtins.elemAt pkgs (n - 1)} > $out/lib/prev" else ""}
    ${if n > 6 then "ln -s ${builtins.elemAt pkgs (n - 7)}/bin $out/lib/older" else ""}
    head -c $(( (${toString n} * 7919) % 90000 )) /dev/urandom > $out/lib/data
    printf '#!/bin/sh\necho ${toString n}\n' > $out/bin/run; chmod +x $out/bin/run
  '') 60;
in
mk "top-1.0" ''
  mkdir $out
  echo ${big} ${shapes} ${file} $out > $out/refs
  ln -s ${builtins.elemAt pkgs 59} $out/last
''
