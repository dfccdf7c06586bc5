// Makers of USB headsets. Generated: python -m firmware_profiles.console_makers
export default [
  { vendor: "EPOS", vendorId: 0x1395 },
  { vendor: "Jabra", vendorId: 0x0b0e },
  { vendor: "Poly", vendorId: 0x047f },
  { vendor: "Yealink", vendorId: 0x6993 },
];
