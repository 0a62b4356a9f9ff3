// The page of one input: its viewer, at the slice that the address names (#12).
{
  const start = /^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : null;
  const viewer = openViewer(document.getElementById("viewer"), JSON.parse(document.getElementById("preview").textContent), start);
  addEventListener("hashchange", () => /^#\d+$/.test(location.hash) && viewer.go(Number(location.hash.slice(1))));
}
