// Loads htmx from the CDN, checked by its hash, or our own copy when the CDN is late, away or not itself.
// It waits for "load": htmx 2 misses its own start when it arrives between DOMContentLoaded and then.
(() => {
  const { cdn, integrity, local, wait } = document.currentScript.dataset;
  const load = (src, hash) => {
    const script = document.createElement("script");
    if (hash) Object.assign(script, { integrity: hash, crossOrigin: "anonymous" });
    script.src = src;
    document.head.append(script);
    return script;
  };
  const start = () => {
    const first = load(cdn, integrity);
    let done = false;
    const fallBack = () => {
      if (done) return;
      done = true;
      first.remove();
      load(local);
    };
    first.onload = () => { done = true; };
    first.onerror = fallBack;
    setTimeout(fallBack, Number(wait));
  };
  if (document.readyState === "complete") start();
  else addEventListener("load", start);
})();
