// The page of one volume in 3-D, drawn by the class Niivue, which stands above this text.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const said = document.getElementById("said");
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const control = (name) => document.querySelector(`[data-control="${name}"]`);
  const side = (length, letters) => `${letters[Number(length < 0)]} ${Math.abs(length).toFixed(1)}`;
  const viewer = new Niivue({
    isRadiologicalConvention: true,
    backColor: [0, 0, 0, 1],
    crosshairColor: [0, 1, 1, 1],
    multiplanarShowRender: 1,
    gradientAmount: 0,
    gradientOpacity: 0.6,
    dragAndDropEnabled: false,
    onLocationChange: (place) => {
      const [x, y, z] = place.mm;
      const map = place.values.find((value) => value.name.startsWith("map"));
      said.textContent = `${side(x, "RL")}, ${side(y, "AP")}, ${side(z, "SI")} mm · map ${map ? map.value.toFixed(2) : "–"}`;
    },
  });
  const show = async () => {
    await viewer.attachToCanvas(document.getElementById("volume"));
    viewer.setRadiologicalConvention(true);
    await viewer.addVolumeFromUrl({ url: "source.nii.gz", name: "source.nii.gz", buffer: bytes(data.source), colormap: "gray", cal_min: 0, cal_max: 1 });
    await viewer.addVolumeFromUrl({ url: "map.nii.gz", name: "map.nii.gz", buffer: bytes(data.map), colormap: "redyell", cal_min: data.threshold, cal_max: 1, opacity: 0.6 });
    const map = viewer.volumes[1];
    const slider = (name, value, change) => {
      const input = control(name);
      const follow = () => {
        input.nextElementSibling.textContent = Number(input.value).toFixed(2);
        change(Number(input.value));
      };
      input.value = value;
      input.addEventListener("input", follow);
      follow();
    };
    slider("threshold", data.threshold, (value) => { map.cal_min = value; viewer.updateGLVolume(); });
    slider("opacity", 0.6, (value) => viewer.setOpacity(1, value));
    control("view").addEventListener("change", (event) => viewer.setSliceType(Number(event.target.value)));
    viewer.setSliceType(3);
    viewer.scene.crosshairPos = viewer.mm2frac(data.place, 0, true);
    viewer.drawScene();
    viewer.createOnLocationChange();
    document.body.dataset.shown = "";
  };
  show().catch((error) => { said.textContent = `This browser cannot show the volume: ${error.message || error}`; });
}
