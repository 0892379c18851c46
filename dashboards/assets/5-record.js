"use strict";
// The Record page: a form, the jobs of this browser, and curves that grow while a job samples.
(() => {
  const { pages } = diffviz;

  pages.record = {
    start() {},
    words() {},
    show() {
      document.documentElement.dataset.ready = "record";
    },
  };
})();
