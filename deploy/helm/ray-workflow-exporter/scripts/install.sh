# Runs in an init container with the image of the head: installs the exporter for that image's Python
# into $FOLDER, a volume that the head mounts too. Never fails: Ray starts with or without it.
#
# Only what the image lacks is installed, and nothing in another version than the image has it.
cd "$FOLDER" &&
  mkdir -p tmp python && export TMPDIR="$FOLDER/tmp" PIP_DISABLE_PIP_VERSION_CHECK=1 &&
  python -m pip list --format=freeze > constraints.txt &&
  timeout "$TIMEOUT_SECONDS" python -m pip install --no-input --no-cache-dir \
    --no-warn-script-location --prefix "$FOLDER/python" --constraint constraints.txt "$PACKAGE" &&
  cat > start.sh <<'END' ||
# Runs in the head container before `ray start`. The folder comes last in Python's path: no package
# of the image or of a job is replaced by one of ours.
find "$(dirname "$0")/python" -type d -name '*-packages' \
  > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ray-workflow-exporter.pth" &&
  python -m ray_workflow_exporter ray-dashboard install
END
  echo "The exporter was not installed (see above): Ray starts without it." >&2
