"""What goes out of the scene and into it: voxels, segments, surfaces, tables, training cases."""
